"""Right actions on pages of MiniWoB++."""
ORACLES: dict = {}
def next_call(task, look, done): return None
