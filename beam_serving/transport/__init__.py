"""Where Redis is and how it is reached: addresses, connections, Sentinel, Cluster."""
