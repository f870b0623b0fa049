"""The slow truth: AdaRem and AdaRem-S element by element in Python floats (float64), written from the paper's letter.

Nothing here is shared with the implementation, not even the algebra: b is a sign times a quotient, alpha² divides.
"""

import math


class Reference:
    """Parameters as flat lists of floats; ``spheres`` lists the indices of tensors that share one sphere each."""

    def __init__(
        self,
        params,
        *,
        lr,
        beta=0.9,
        lam=0.999,
        decay_every=1,
        eps=0.0,
        weight_decay=0.0,
        scope="tensor",
        maximize=False,
        spheres=(),
        radius=None,
        slr=True,
    ):
        self.p = [[float(x) for x in t] for t in params]
        self.m = [[0.0] * len(t) for t in self.p]
        self.t = [0] * len(self.p)
        self.__dict__.update(lr=lr, beta=beta, lam=lam, decay_every=decay_every, eps=eps, wd=weight_decay)
        self.__dict__.update(scope=scope, maximize=maximize, spheres=spheres, slr=slr)
        self.radius, self.alpha = {}, {}
        for sphere in spheres:
            size = self.norm(sphere)
            self.radius[sphere] = size if radius is None else radius
            for k in sphere:
                self.alpha[k] = size / self.radius[sphere]
            self.rescale(sphere)

    def norm(self, tensors):
        return math.sqrt(math.fsum(x * x for k in tensors for x in self.p[k]))

    def rescale(self, sphere):
        factor = self.radius[sphere] / self.norm(sphere)
        for k in sphere:
            self.p[k] = [x * factor for x in self.p[k]]

    def step(self, grads, whole=None):
        """One step; None is a parameter without gradient. ``whole``: max|m| of a model that has more groups."""
        if whole is None:
            whole = max((abs(x) for t in self.m for x in t), default=0.0)
        for k, grad in enumerate(grads):
            if grad is None:
                continue
            on_sphere = any(k in sphere for sphere in self.spheres)
            rate, decay = self.lr, self.wd
            if on_sphere and self.slr:
                rate, decay = self.lr / ((1 - self.lr * self.wd) * self.alpha[k] ** 2), 0.0
            largest = whole if self.scope == "model" else max((abs(x) for x in self.m[k]), default=0.0)
            coefficient = self.lam ** (self.t[k] // self.decay_every)
            for i, g in enumerate(grad):
                g = -float(g) if self.maximize else float(g)
                m = self.m[k][i]
                if self.eps > 0:
                    b = g * m / (abs(g) * largest + self.eps)
                elif g == 0 or m == 0:
                    b = 0.0
                else:
                    b = math.copysign(1, g) * m / largest
                eta = (1 + coefficient * b) * rate
                self.p[k][i] -= eta * g + rate * decay * self.p[k][i]
                self.m[k][i] = self.beta * m + (1 - self.beta) * g
            self.t[k] += 1
        for sphere in self.spheres:
            grown = self.norm(sphere) / self.radius[sphere]
            for k in sphere:
                if self.slr:
                    self.alpha[k] *= (1 - self.lr * self.wd) * grown
            self.rescale(sphere)
