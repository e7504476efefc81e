! A Bell pair from Fortran.
!
!     simenv up --gateway 127.0.0.1:0
!     eval "$(simenv gateway env)"
!     simenv qpi build
!     gfortran build/qpi/include/simenv_qpi.f90 examples/qpi/bell.f90 $(simenv qpi flags) -o bell
program bell
   use simenv_qpi
   implicit none
   character(len=*), parameter :: text = &
      'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; '// &
      'h q[0]; cx q[0], q[1]; measure q -> c;'//c_null_char
   type(c_ptr) :: session, circuit, job
   type(qpi_options) :: options
   integer(c_size_t) :: outcomes, index
   integer(c_int64_t) :: count
   character(kind=c_char) :: bits(3)

   call check(qpi_init(session=session))
   call check(qpi_circuit_from_qasm(text, circuit))
   call qpi_options_init(options)
   options%shots = 1000
   options%has_seed = 1
   options%seed = 7
   call check(qpi_submit(session, circuit, options, rows=1_c_size_t, timeout_s=10.0_c_double, &
                         job=job))
   call check(qpi_wait(job, 300.0_c_double))
   call check(qpi_counts_size(job, 0_c_size_t, outcomes))
   do index = 0, outcomes - 1
      call check(qpi_counts_entry(job, 0_c_size_t, index, bits, size(bits, kind=c_size_t), count))
      print '(2a1, 1x, i0)', bits(1:2), count
   end do
   call qpi_job_free(job)
   call qpi_circuit_free(circuit)
   call qpi_finalize(session)

contains

   subroutine check(status)
      integer(c_int), intent(in) :: status
      if (status == qpi_ok) return
      print '(a)', qpi_error_text()
      error stop 1
   end subroutine
end program
