"""Conversations of the page: images with their questions and answers, kept on the server for the retention time.

A question belongs to the conversation and not to the connection that sent it: who reloads the page, or loses the
network, finds the answer there, and a question that is sent twice under one key is asked once. A conversation lives in
the image store, so that it survives a restart and other servers find it; the last writer wins where two write at once.
"""
