"""The one switch that ends reading in this process: signal handlers set it, the source looks at it."""

import threading

STOP = threading.Event()
