//go:build go1.23

package main

import "iter"

func init() {
	class("coroutine", func() {
		c := make(chan int)
		next, stop := iter.Pull(func(yield func(int) bool) {
			defer close(c)
			for i := 0; yield(i); i++ {
			}
		})
		next()
		receive(c)
		hold(stop)
	})
}
