"""Simulated workspaces in MuJoCo: scenes, objects, success measures, cameras and the environment around them."""
