from .web import WebTask
def make_web(**options): return WebTask(**options)
