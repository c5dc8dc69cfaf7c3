"""Motion planning for demonstrations: kinematics, timed paths and one oracle per task."""
