"""Where Redis is when it is more than one server: how that is written, and how connections find the one to ask."""
