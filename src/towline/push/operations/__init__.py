"""What a `Pusher` does beside pushing: plan, inspect, tag."""
