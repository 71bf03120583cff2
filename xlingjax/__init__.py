"""When, where and why multilingual language models come to share neurons across languages."""
