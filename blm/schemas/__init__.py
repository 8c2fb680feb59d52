"""The contracts between rooms: embodiments, tasks, episodes, corpus records, shards, manifests, rollouts, errors."""
