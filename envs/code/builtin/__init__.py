"""Problems of our own: fixed ones on four levels, and families that make as many as there are seeds."""
