"""What engines of Java have in common: Beam's job server and its jar, the driver that submits to it, the workers."""
