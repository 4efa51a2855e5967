from one_thread import _one_thread  # noqa: F401 (a fixture)
