# SPDX-License-Identifier: MIT
"""Write the file of one hostile case, to look at it or to run it by hand.

usage: write_case.py            list the cases
       write_case.py NAME FILE  write one
"""

import sys

from hostile import CASES

if len(sys.argv) == 3:
    with open(sys.argv[2], "wb") as file:
        file.write(CASES[sys.argv[1]].build())
else:
    print("\n".join(f"{case.outcome:9} {name}" for name, case in CASES.items()))
