"""What the operator sees: progress while the job runs, the summary when it ends."""
