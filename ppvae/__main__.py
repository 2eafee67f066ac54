"""`python -m ppvae` is `ppvae`."""

import sys

from ppvae.cli import main

sys.exit(main())
