"""What the library's messages call its arguments, in the words of a command line."""

from __future__ import annotations

import re

# At the start of a word alone: a name in quotes (of a run, say) may hold the same letters.
WORDS = (
    (r"run=…", "RUN"),
    (r"as in store\.run\([^)]*keep=Keep\(last=3, best=2\)\)", "where it is trained"),
    (r"keep=Keep\(last=3, best=2\)", "--last 3 --best 2"),
    (r"(metric|mode|catalog)=(?=['\"])", r"--\1 "),
    (r"(metric|mode|catalog)=(?!\S)", r"--\1"),
    (
        r"storage_options=\{'client_kwargs': \{'(\w+)': '([\w-]+)'\}\}",
        r"""--option client_kwargs='{"\1": "\2"}'""",
    ),
    (r"Store\(…, single_writer=True\)", "--single-writer"),
    (r"single_writer=True", "--single-writer"),
    (r"(?:store\.)?verify\(repair=True\)", "ckptstore verify --repair"),
    (r"(?:store\.)?(verify|collect|reindex)\(\)", r"ckptstore \1"),
    (r"store\.undelete\(('[^']*'|…)\)", r"ckptstore undelete STORE \1"),
    (r"copy_to(?!\S)", "ckptstore copy"),
    (r"trust_pickle=True,", "--trust-pickle,"),
    (r"again=True(?!\S)", "--again"),
    (r"unwrap=False(?!\S)", "--no-unwrap"),
    (r"storage_options=\{'(\w+)': …, '(\w+)': …\}", r"--option \1=… --option \2=…"),
)


def typed(message: str) -> str:
    """Return a message of the library with what to type instead of what to pass.

    ``say mode='min'`` is ``say --mode 'min'`` here.
    """
    for passed, option in WORDS:
        message = re.sub(rf"(?<!\S){passed}", option, message)
    return message
