"""What is measured: metric names, cgroup facts."""
