"""What the agents must know of each combinatorial problem: one file a problem, one `ProblemKit` a file (see `kit`)."""
