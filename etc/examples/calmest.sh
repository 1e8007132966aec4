#!/bin/sh
# The five coins that are expected to move least in the next 24 hours, and how much: with cryptoctl and jq.
cryptoctl export forecasts --format json |
    jq -rs 'map(select(.horizon == 24)) | sort_by(.volatility) | .[:5][] | "\(.symbol) \(.volatility * 10000 | round / 100) %"'
