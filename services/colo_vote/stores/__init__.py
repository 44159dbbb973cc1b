"""Kinds of stores, one file for each (`colo_vote.store`)."""
