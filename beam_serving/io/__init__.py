"""The pipeline's two ends in Redis: `source.ReadFromRedisStream` and `sink.WriteToRedis`.

Nothing is imported here, so that the supervisor can look after a consumer group without paying for Beam.
"""
