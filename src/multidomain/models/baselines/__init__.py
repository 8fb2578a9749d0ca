"""What the architectures are compared with."""
