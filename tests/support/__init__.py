"""What tests share: real programs to test against, and how they are started and stopped."""
