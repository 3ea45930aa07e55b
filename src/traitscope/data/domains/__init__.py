"""Domains beside number lists: code, word problems, requests and stories, and how to check them."""
