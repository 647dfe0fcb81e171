"""What several tests share: address spaces, runs, compiled units, made-up sessions, toy programs."""
