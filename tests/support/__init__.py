"""What tests share. Imported as `support`, see `tests/conftest.py`."""
