"""Every model class against `transformers`; what the tests share is in `oracle`."""
