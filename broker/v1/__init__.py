"""The API's messages and stubs.

Written by `make proto` from `protos/broker/v1`, where the API's comments are; never edited here.
"""
