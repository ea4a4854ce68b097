"""Double entry: what the applications counted must equal what the kernels counted. Pure."""

from twbench.audit.account import Account, StackAccount
from twbench.audit.identities import Audit, audit
from twbench.audit.identity import Identity

__all__ = ["Account", "Audit", "Identity", "StackAccount", "audit"]
