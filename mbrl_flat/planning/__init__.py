"""Planners: functions of a latent model, with their memory passed as a value."""
