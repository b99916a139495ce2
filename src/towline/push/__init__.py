"""The push: learn, plan, settle, send, tag. `pusher.py` tells the story."""
