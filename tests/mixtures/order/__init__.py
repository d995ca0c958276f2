"""Tests of `mixtures/order`."""
