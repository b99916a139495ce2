"""What towline promises, each promise tried."""
