"""Programs as answers: problems, the sandbox that runs them, and what their results are worth."""
