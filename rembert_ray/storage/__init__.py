"""Where data lives: locations, listings, Parquet, the exactly-once commit, the lease.

Imports neither torch nor ray, and knows nothing of tasks or models. Import from the modules:

    location    a URL and its filesystem        commit   a shard becomes one object, exactly once
    listing     files, versions, inputs         lease    one run per output
    parquet     footers, row ranges, encoding   probe    can this place take an output?
    put         create-only, atomic puts        digest   what a table says, as sha256
    filesystem  scheme to fsspec, retries, what errors mean
    s3          S3 requests with deadlines
"""
