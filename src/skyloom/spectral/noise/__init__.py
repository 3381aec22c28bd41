"""What a cube says about its own noise."""
