"""`python -m bnnlight.commands.torchrun`: torchrun that ends with the exit code of the process that failed.

torchrun itself ends with 1 whatever happened. Those who start jobs must know more: what exits with 75 is to be started
again, what exits with 1 or 2 is not.
"""

from __future__ import annotations

import os
import signal
import sys

import torch.distributed
from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError

TRY_AGAIN = os.EX_TEMPFAIL

WAIT_S = 100
"""How long processes that are told to stop may take to save. torchrun's own 30 s are short for that."""


def main(argv: list[str] | None = None) -> int:
    """Runs torchrun.

    Args:
        argv: torchrun's command line; ``sys.argv[1:]`` by default.

    Returns:
        0; the exit code of the process that failed first, 128 + N where signal N killed it; 75 where torchrun was told
        to stop, or the other machines are not there or went away; 130 after Ctrl-C.
    """
    # by variables, since older versions of torch do not know the options
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(WAIT_S))
    os.environ.setdefault("PET_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2")
    # or a machine that takes a lost one's place waits in vain: the first one tells its address once, not in each round
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    try:
        run.main(argv)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    except SignalException as received:
        return 130 if received.sigval == signal.SIGINT else TRY_AGAIN
    except (RendezvousError, torch.distributed.DistError) as error:
        line = " ".join(str(error).split())
        print(f"torchrun: the other machines cannot be reached, start this again: {line}", file=sys.stderr)
        return TRY_AGAIN
    return 0


if __name__ == "__main__":
    sys.exit(main())
