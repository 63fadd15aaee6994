package main

import (
	"container/list"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

var (
	globalMap   = map[string]chan int{}
	globalSlice []*holder
	globalPool  = sync.Pool{New: func() any { return nil }}
	globalAny   any
	globalSync  sync.Map
	globalValue atomic.Value
	globalTimer *time.Timer
	hidden      = map[string]unsafe.Pointer{}
	globalMutex sync.Mutex
	globalCond  = sync.NewCond(&sync.Mutex{})
	globalWait  sync.WaitGroup
	flights     = map[string]*flight{}
)

type holder struct {
	padding [3]int
	c       chan int
}

type flight struct {
	wg sync.WaitGroup
}

type large struct {
	padding [100]int
	c       chan int
	more    [100]*int
}

func receive(c chan int) {
	go func() { <-c }()
}

func init() {
	class("accept loop", func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		connections := make(chan net.Conn)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					close(connections)
					return
				}
				connections <- c
			}
		}()
		go func() {
			for range connections {
			}
		}()
	})
	class("keep-alive", func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
		for i := 0; i < 4; i++ {
			response, err := client.Get("http://" + l.Addr().String())
			if err != nil {
				panic(err)
			}
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		hold(client.CloseIdleConnections)
	})
	class("worker pool", func() {
		jobs := make(chan func())
		for i := 0; i < 8; i++ {
			go func() {
				for job := range jobs {
					job()
				}
			}()
		}
		hold(func() { close(jobs) })
	})
	class("global map", func() {
		globalMap["a"] = make(chan int)
		receive(globalMap["a"])
	})
	class("global slice", func() {
		h := &holder{c: make(chan int)}
		globalSlice = append(globalSlice, h)
		receive(h.c)
	})
	class("cond pool", func() {
		c := sync.NewCond(&sync.Mutex{})
		for i := 0; i < 4; i++ {
			go func() {
				c.L.Lock()
				c.Wait()
				c.L.Unlock()
			}()
		}
		hold(c.Broadcast)
	})
	class("global cond", func() {
		go func() {
			globalCond.L.Lock()
			globalCond.Wait()
			globalCond.L.Unlock()
		}()
	})
	class("ticker", func() {
		go func() {
			for range time.NewTicker(time.Hour).C {
			}
		}()
		go func() {
			for range time.NewTicker(5 * time.Millisecond).C {
			}
		}()
	})
	class("timers", func() {
		go func() { <-time.After(time.Hour) }()
		go func() { <-time.NewTimer(time.Hour).C }()
		go func() {
			select {
			case <-time.After(time.Hour):
			case <-make(chan int):
			}
		}()
		go func() { time.Sleep(time.Hour) }()
	})
	class("stopped timer that can be reset", func() {
		globalTimer = time.NewTimer(time.Hour)
		globalTimer.Stop()
		go func() { <-globalTimer.C }()
		own := time.NewTimer(time.Hour)
		own.Stop()
		go func(c <-chan time.Time) { <-c }(own.C)
		hold(func() { own.Reset(1) })
	})
	class("AfterFunc", func() {
		c := make(chan int)
		time.AfterFunc(time.Hour, func() { close(c) })
		receive(c)
	})
	class("context timeout", func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		_ = cancel
		go func() { <-ctx.Done() }()
		child, stop := context.WithCancel(ctx)
		_ = stop
		go func() { <-child.Done() }()
	})
	class("context cancel", func() {
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-ctx.Done() }()
		child, stop := context.WithTimeout(ctx, 2*time.Hour)
		_ = stop
		go func() {
			select {
			case <-child.Done():
			case <-make(chan int):
			}
		}()
		hold(cancel)
	})
	class("signal loop", func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGUSR2)
		go func() {
			for range c {
			}
		}()
	})
	class("finalizer-stopped worker", func() {
		c := make(chan int)
		h := &holder{c: c}
		runtime.SetFinalizer(h, func(h *holder) { close(h.c) })
		receive(c)
	})
	class("finalizer closure", func() {
		c := make(chan int)
		runtime.SetFinalizer(new([64]byte), func(*[64]byte) { close(c) })
		receive(c)
	})
	class("pipes", func() {
		r, w := io.Pipe()
		go io.Copy(io.Discard, r)
		hold(func() { w.Close() })
		or, ow, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		go io.Copy(io.Discard, or)
		hold(func() { ow.Close() })
	})
	class("held mutex", func() {
		mu := &sync.Mutex{}
		mu.Lock()
		for i := 0; i < 3; i++ {
			go func() {
				mu.Lock()
				mu.Unlock()
			}()
		}
		hold(mu.Unlock)
	})
	class("held global mutex", func() {
		globalMutex.Lock()
		go func() {
			globalMutex.Lock()
			globalMutex.Unlock()
		}()
	})
	class("held rwmutex", func() {
		mu := &sync.RWMutex{}
		mu.RLock()
		go func() {
			mu.Lock()
			mu.Unlock()
		}()
		time.Sleep(50 * time.Millisecond)
		go func() {
			mu.RLock()
			mu.RUnlock()
		}()
		hold(mu.RUnlock)
	})
	class("wait group in progress", func() {
		wg := &sync.WaitGroup{}
		wg.Add(1)
		go wg.Wait()
		hold(wg.Done)
	})
	class("global wait group", func() {
		globalWait.Add(1)
		go globalWait.Wait()
	})
	class("errgroup", func() {
		var wg sync.WaitGroup
		limit := make(chan struct{}, 2)
		ctx, cancel := context.WithCancel(context.Background())
		wg.Add(4)
		for i := 0; i < 4; i++ {
			go func() {
				defer func() {
					wg.Done()
					<-limit
				}()
				limit <- struct{}{}
				select {
				case <-ctx.Done():
				case <-time.After(time.Hour):
				}
			}()
		}
		go func() {
			wg.Wait()
			cancel()
		}()
	})
	class("singleflight", func() {
		f := &flight{}
		f.wg.Add(1)
		flights["key"] = f
		for i := 0; i < 3; i++ {
			go f.wg.Wait()
		}
	})
	class("sync.Pool", func() {
		h := &holder{c: make(chan int)}
		globalPool.Put(h)
		receive(h.c)
	})
	class("locked thread", func() {
		c := make(chan int)
		go func() {
			runtime.LockOSThread()
			<-c
		}()
		hold(func() { close(c) })
	})
	class("gc pressure", func() {
		c := make(chan []byte, 4)
		go func() {
			var kept [][]byte
			for b := range c {
				kept = append(kept, b)
				if len(kept) > 1000 {
					kept = nil
				}
			}
		}()
		go func() {
			for {
				c <- make([]byte, 1000)
				time.Sleep(time.Millisecond)
			}
		}()
	})
	class("unsafe pointer in a map", func() {
		h := &holder{c: make(chan int)}
		hidden["h"] = unsafe.Pointer(h)
		receive(h.c)
	})
	class("deferred close", func() {
		c := make(chan int)
		go func() {
			defer close(c)
			time.Sleep(time.Hour)
		}()
		receive(c)
	})
	class("deferred in a loop", func() {
		many := make([]chan int, 4)
		for i := range many {
			many[i] = make(chan int)
			receive(many[i])
		}
		go func() {
			for _, c := range many {
				c := c
				defer func() { close(c) }()
			}
			many = nil
			time.Sleep(time.Hour)
		}()
	})
	class("deferred while panicking", func() {
		c, d := make(chan int), make(chan int)
		go func() {
			defer func() {
				recover()
				close(c)
			}()
			defer func() {
				time.Sleep(time.Hour)
				close(d)
			}()
			panic(c)
		}()
		receive(c)
		receive(d)
	})
	class("stack object", func() {
		c := make(chan int)
		go func() {
			h := holder{c: c}
			p := &h
			if keep(p) {
				globalAny = p.padding
			}
			time.Sleep(time.Hour)
			close(p.c)
		}()
		receive(c)
	})
	class("large stack argument", func() {
		l := large{c: make(chan int)}
		go sleepWith(l, 1)
		receive(l.c)
	})
	class("large objects", func() {
		l := &large{c: make(chan int)}
		many := make([]large, 100)
		many[77].c = make(chan int)
		pointers := make([]*large, 100000)
		pointers[99999] = &large{c: make(chan int)}
		strings := make([]struct {
			s string
			c chan int
		}, 3000)
		strings[2999].c = make(chan int)
		receive(l.c)
		receive(many[77].c)
		receive(pointers[99999].c)
		receive(strings[2999].c)
		hold(func() { close(l.c); close(many[77].c); close(pointers[99999].c); close(strings[2999].c) })
	})
	class("channel in a channel", func() {
		outer := make(chan chan int, 3)
		inner := make(chan int)
		outer <- inner
		receive(inner)
		hold(func() { close(<-outer) })
		sender := make(chan *holder)
		h := &holder{c: make(chan int)}
		go func(h *holder) { sender <- h }(h)
		receive(h.c)
		hold(func() { close((<-sender).c) })
	})
	class("interfaces and maps", func() {
		c := make(chan int)
		byKey := map[[4]string]any{{"a"}: map[int]any{1: []any{c}}}
		receive(c)
		hold(func() { close(byKey[[4]string{"a"}].(map[int]any)[1].([]any)[0].(chan int)) })
		key := make(chan int)
		keys := map[chan int]bool{key: true}
		receive(key)
		hold(func() {
			for c := range keys {
				close(c)
			}
		})
		s, v := make(chan int), make(chan int)
		globalSync.Store("s", s)
		globalValue.Store(&holder{c: v})
		receive(s)
		receive(v)
	})
	class("linked list", func() {
		l := list.New()
		for i := 0; i < 10000; i++ {
			l.PushBack(i)
		}
		c := make(chan int)
		l.PushBack(c)
		receive(c)
		hold(func() { close(l.Back().Value.(chan int)) })
	})
	class("reflect", func() {
		c := make(chan int)
		t := reflect.StructOf([]reflect.StructField{
			{Name: "A", Type: reflect.TypeOf([200]int{})},
			{Name: "C", Type: reflect.TypeOf(c)},
		})
		v := reflect.New(t)
		v.Elem().Field(1).Set(reflect.ValueOf(c))
		receive(c)
		hold(func() { v.Elem().Field(1).Close() })

		d := make(chan int)
		f := reflect.MakeFunc(reflect.TypeOf(func(chan int) {}), func(args []reflect.Value) []reflect.Value {
			time.Sleep(time.Hour)
			args[0].Close()
			return nil
		}).Interface().(func(chan int))
		go f(d)
		receive(d)

		e := make(chan int)
		go func() {
			reflect.Select([]reflect.SelectCase{{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(e)}})
		}()
		hold(func() { close(e) })

		m := &holder{c: make(chan int)}
		go reflect.ValueOf(m).MethodByName("SleepAndClose").Call(nil)
		receive(m.c)
		value := reflect.ValueOf(&holder{c: make(chan int)})
		receive(value.Interface().(*holder).c)
		go value.Method(0).Interface().(func())()
	})
	class("system call", func() {
		c := make(chan int)
		var fds [2]int
		if err := syscall.Pipe(fds[:]); err != nil {
			panic(err)
		}
		go func() {
			var b [1]byte
			syscall.Read(fds[0], b[:])
			close(c)
		}()
		receive(c)
	})
	class("running", func() {
		c := make(chan int)
		var stop atomic.Bool
		go func(own chan int) {
			for !stop.Load() {
			}
			close(own)
		}(c)
		receive(c)
	})
	class("yielding", func() {
		c := make(chan int)
		go func() {
			for i := 0; i >= 0; i++ {
				runtime.Gosched()
			}
			close(c)
		}()
		receive(c)
	})
	class("chain", func() {
		first := make(chan int)
		last := first
		for i := 0; i < 1000; i++ {
			next := make(chan int)
			go func(from, to chan int) { to <- <-from }(last, next)
			last = next
		}
		hold(func() { first <- 1 })
	})
	class("ping pong", func() {
		a, b := make(chan *holder), make(chan *holder)
		go func() {
			for h := range a {
				time.Sleep(time.Millisecond)
				b <- h
			}
		}()
		go func() {
			for h := range b {
				a <- h
			}
		}()
		h := &holder{c: make(chan int)}
		receive(h.c)
		a <- h
	})
	class("woken all the time", func() {
		c, d := make(chan int), make(chan int, 3)
		go func() {
			for i := 0; ; i++ {
				select {
				case c <- i:
				case d <- i:
				}
			}
		}()
		for i := 0; i < 3; i++ {
			go func() {
				for range c {
				}
			}()
			go func() {
				for range d {
				}
			}()
		}
	})
	class("busy locks", func() {
		mu, wg, cond := &sync.Mutex{}, &sync.WaitGroup{}, sync.NewCond(&sync.Mutex{})
		for i := 0; i < 4; i++ {
			go func() {
				for {
					mu.Lock()
					runtime.Gosched()
					mu.Unlock()
				}
			}()
		}
		go func() {
			for {
				wg.Add(1)
				go wg.Done()
				wg.Wait()
			}
		}()
		go func() {
			for {
				cond.L.Lock()
				cond.Wait()
				cond.L.Unlock()
			}
		}()
		go func() {
			for {
				cond.Signal()
				time.Sleep(time.Microsecond)
			}
		}()
	})
	class("shared by waiters", func() {
		// A waits for what only B holds, B for what only a timer holds.
		a, b := make(chan int), make(chan int)
		go func() {
			<-b
			close(a)
		}()
		receive(a)
		time.AfterFunc(time.Hour, func() { close(b) })
	})
}

//go:noinline
func keep(h *holder) bool { return h.c == nil }

//go:noinline
func sleepWith(l large, n int) {
	time.Sleep(time.Duration(n) * time.Hour)
	close(l.c)
}

// SleepAndClose is called through reflection.
func (h *holder) SleepAndClose() {
	time.Sleep(time.Hour)
	close(h.c)
}
