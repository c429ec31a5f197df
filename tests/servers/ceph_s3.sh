#!/bin/bash
# A real S3 server on loopback for tests: Ceph's gateway 16 from Debian's packages, unpacked, not installed (no root,
# no service, no container): one monitor, one in-memory object daemon, one gateway; about 130 MB.
#
#   ceph_s3.sh PACKAGES RUN      PACKAGES caches the unpacked packages (70 MB download, once); RUN must not exist
#
# Prints the endpoint on its last line. The key is `testkey`, the secret `testsecret123`. RUN/*.pid are the processes;
# whoever started the server ends them. Exit code 3: the packages cannot be had here (no apt, no Python 3.11, no network).
set -euo pipefail
packages=${1:?folder for the unpacked packages}
run=${2:?folder for this run}

fetch() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo "no apt-get or dpkg here" >&2; exit 3; }
    local staging debs
    staging=$(mktemp -d "$packages/unpack.XXXXXX")
    debs=$staging.debs
    mkdir -p "$debs/partial"
    apt-get install -y -qq --download-only -o Dir::Cache::archives="$debs" -o Debug::NoLocking=1 \
        ceph-mon ceph-osd radosgw ceph-common python3-rados >/dev/null ||
        { apt-get update -qq >/dev/null && apt-get install -y -qq --download-only \
            -o Dir::Cache::archives="$debs" -o Debug::NoLocking=1 \
            ceph-mon ceph-osd radosgw ceph-common python3-rados >/dev/null; } ||
        { echo "the packages of Ceph cannot be had" >&2; exit 3; }
    for deb in "$debs"/*.deb; do dpkg -x "$deb" "$staging"; done
    [ -x "$staging/usr/bin/radosgw" ] || { echo "no radosgw among the packages" >&2; exit 3; }
    # The name appears once everything is unpacked, so an interrupted run leaves no half cache.
    mv -T "$staging" "$packages/root" 2>/dev/null || rm -rf "$staging"
    rm -rf "$debs"
}

free_ports() { # three at a time, so that they differ
    "$python" - <<'PY'
import socket
held = [socket.socket() for _ in range(3)]
for one in held:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))
PY
}

# Debian's rados binding is built for the system's Python.
python=/usr/bin/python3
[ -x "$python" ] || { echo "no $python for Ceph's Python binding" >&2; exit 3; }
mkdir -p "$packages"
packages=$(cd "$packages" && pwd)
[ -x "$packages/root/usr/bin/radosgw" ] || fetch
root=$packages/root
lib=$root/usr/lib/$(uname -m)-linux-gnu
bin=$root/usr/bin
export LD_LIBRARY_PATH=$lib:$lib/ceph:$root/lib/$(uname -m)-linux-gnu

mkdir -p "$run"/{mon,osd,rgw,sock}
run=$(cd "$run" && pwd)
fsid=$("$python" -c 'import uuid; print(uuid.uuid4())')
read -r mon_v2 mon_v1 gateway < <(free_ports)

cat >"$run/ceph.conf" <<EOF
[global]
fsid = $fsid
mon_initial_members = a
mon_host = [v2:127.0.0.1:$mon_v2,v1:127.0.0.1:$mon_v1]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
ms_mon_service_mode = crc
ms_mon_cluster_mode = crc
ms_client_mode = crc
ms_service_mode = crc
ms_cluster_mode = crc
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_memory_target = 939524096
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
osd_max_object_namespace_len = 64
ms_async_op_threads = 1
erasure_code_dir = $lib/ceph/erasure-code
plugin_dir = $lib/ceph
osd_class_dir = $lib/rados-classes
osd_class_load_list = *
osd_class_default_list = *
run_dir = $run/sock
log_file = $run/\$name.log
pid_file = $run/sock/\$name.pid
admin_socket = $run/sock/\$name.asok
mon_data = $run/mon
osd_data = $run/osd
rgw_data = $run/rgw
mon_cluster_log_file = $run/cluster.log
mon_tick_interval = 1
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
[client]
rgw_frontends = beast endpoint=127.0.0.1:$gateway tcp_nodelay=1
rgw_thread_pool_size = 32
rgw_dynamic_resharding = false
rgw_enable_usage_log = false
EOF

start() { # NAME COMMAND...: in the background, its own session, its pid in RUN/NAME.pid
    local name=$1
    shift
    setsid "$@" >"$run/$name.out" 2>&1 </dev/null &
    echo $! >"$run/$name.pid"
}

ceph=(-c "$run/ceph.conf")
"$bin/monmaptool" --create --clobber --addv a "[v2:127.0.0.1:$mon_v2,v1:127.0.0.1:$mon_v1]" --fsid "$fsid" \
    "$run/monmap" >/dev/null
"$bin/ceph-authtool" --create-keyring "$run/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
for client in client.admin client.rgw; do
    "$bin/ceph-authtool" "$run/keyring" --gen-key -n "$client" --cap mon 'allow *' --cap osd 'allow *' >/dev/null
done
"$bin/ceph-mon" "${ceph[@]}" --mkfs -i a --monmap "$run/monmap" --keyring "$run/keyring"
start mon "$bin/ceph-mon" "${ceph[@]}" -i a -f

PYTHONPATH=$root/usr/lib/python3/dist-packages "$python" - "$run" <<'PY'
import json, pathlib, sys, uuid
import rados

run = pathlib.Path(sys.argv[1])
cluster = rados.Rados(conffile=f"{run}/ceph.conf", name="client.admin", conf={"keyring": f"{run}/keyring"})
cluster.connect(timeout=20)
osd = str(uuid.uuid4())
(run / "osd.uuid").write_text(osd)
for command in (
    {"prefix": "osd new", "uuid": osd},
    {"prefix": "osd crush add", "id": 0, "weight": 1.0, "args": ["root=default", "host=localhost"]},
):
    code, _, message = cluster.mon_command(json.dumps(command), b"", timeout=20)
    if code:
        sys.exit(f"{command}: {message}")
PY

"$bin/ceph-osd" "${ceph[@]}" -i 0 --mkfs --osd-uuid "$(cat "$run/osd.uuid")" >"$run/osd-mkfs.out" 2>&1
start osd "$bin/ceph-osd" "${ceph[@]}" -i 0 -f
"$bin/radosgw-admin" "${ceph[@]}" --keyring "$run/keyring" -n client.admin user create --uid test \
    --display-name test --access-key testkey --secret-key testsecret123 >"$run/user.out" 2>&1
start gateway "$bin/radosgw" "${ceph[@]}" -n client.rgw --keyring "$run/keyring" -f
for _ in $(seq 1 600); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$gateway") 2>/dev/null; then
        echo "http://127.0.0.1:$gateway"
        exit 0
    fi
    sleep 0.05
done
echo "the gateway did not start; see $run" >&2
exit 1
