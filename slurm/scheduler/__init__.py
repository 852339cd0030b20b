"""What the cluster says of its jobs, nodes and partitions."""
