"""What computes: one module per engine."""
