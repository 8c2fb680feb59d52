"""Planning: from a task and a scene to smooth, limited, collision-free commands, and the agent that streams them."""
