//go:build go1.24

package main

import (
	"runtime"
	"time"
	"weak"
)

func init() {
	class("cleanup", func() {
		c := make(chan int)
		runtime.AddCleanup(&holder{}, func(c chan int) { close(c) }, c)
		receive(c)
	})
	class("weak pointer", func() {
		h := &holder{c: make(chan int)}
		w := weak.Make(h)
		go func() {
			<-h.c
			runtime.KeepAlive(h)
		}()
		go func() {
			time.Sleep(time.Hour)
			if h := w.Value(); h != nil {
				close(h.c)
			}
		}()
	})
}
