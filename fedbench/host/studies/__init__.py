"""Many runs and one answer: sweeps, the paper's tables, fidelity, comparison."""
