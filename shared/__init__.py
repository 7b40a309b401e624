"""What every service stands on; never imports services."""
