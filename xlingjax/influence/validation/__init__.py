"""Whether influence tells what it says: exact inverses, the proximal Bregman response, retraining without a part."""
