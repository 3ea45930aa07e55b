"""May I train on these data?"""
