"""Problems inside problems: derivatives through training on the synthetic set."""

from condensery.bilevel.unroll import first_order_pullback, pullback, unroll, unroll_light

__all__ = ["first_order_pullback", "pullback", "unroll", "unroll_light"]
