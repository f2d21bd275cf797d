"""What runs on the other side of the sandbox, in an interpreter of its own: the standard library is all it has.

The folder is loaded under another name by a bare interpreter (see `polyathlon.envs.code.worker`), so nothing here may
import the rest of the package.
"""
