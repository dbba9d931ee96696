// A load in native code, as pybind11 and its like write them: it lets go of the GIL and takes it
// back in a destructor, again and again. Taking it back while the interpreter ends unwinds the
// thread through that destructor, which C++ answers with abort().
#include <Python.h>
#include <unistd.h>

struct Released {
    PyThreadState *state = PyEval_SaveThread();
    ~Released() { PyEval_RestoreThread(state); }
};

static PyObject *hang(PyObject *, PyObject *) {
    for (;;) {
        Released released;
        usleep(100);
    }
}

static PyMethodDef functions[] = {{"hang", hang, METH_NOARGS, "Never return."}, {}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "native", nullptr, -1, functions};

PyMODINIT_FUNC PyInit_native() { return PyModule_Create(&module); }
